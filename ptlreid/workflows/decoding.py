"""Every image file read and decoded once, over all cores, in processes that load nothing but Pillow.

Not threads: decoding a small image is mostly Python's own work. Not a pool from `multiprocessing`: as in
`drawing/crews.py`, that would import the caller's main module in every process.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from itertools import batched as _batched  # noqa: F401
from pathlib import Path
from queue import SimpleQueue

from PIL import Image, UnidentifiedImageError
