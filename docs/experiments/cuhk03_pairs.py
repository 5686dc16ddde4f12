"""CUHK03's first camera pair, and its other four with half of their people unlabelled: two CSVs for `prepare folder`.

python cuhk03_pairs.py data/cuhk03-detected/detected

writes pair1.csv and others.csv into that folder, where `ptlreid prepare cuhk03:detected` put the images. The first has
all 843 people of pair 1 for training. In the second, a random half of the people of each other pair is for training,
and of the other half, the first image of each person in each camera is a query, and every other one in the gallery.
"""

import csv
import random
import sys
from collections import defaultdict
from pathlib import Path

folder = Path(sys.argv[1])
views: dict[tuple[int, int], dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
for file in sorted(folder.glob("*.png")):
    pair, person, view, _ = map(int, file.stem.split("_"))
    views[pair, person][view].append(file.name)

generator = random.Random(0)
rows: dict[str, list[tuple[str, int, int, str]]] = {"pair1.csv": [], "others.csv": []}
pid = 0
for pair in range(1, 6):
    people = sorted(person for other, person in views if other == pair)
    unlabelled = set(generator.sample(people, len(people) // 2))
    for person in people:
        for view, names in sorted(views[pair, person].items()):
            camera = 2 * (pair - 1) + view
            for number, name in enumerate(names):
                test = "query" if number == 0 else "gallery"
                part = "train" if pair == 1 or person in unlabelled else test
                rows["pair1.csv" if pair == 1 else "others.csv"].append((name, pid, camera, part))
        pid += 1
for target, lines in rows.items():
    with (folder / target).open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "pid", "camid", "split"), *lines])
