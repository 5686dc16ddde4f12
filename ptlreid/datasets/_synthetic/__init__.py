"""Synthetic pedestrians: draws small datasets of people seen by the cameras of a site."""

from ptlreid.datasets._synthetic.crews import draw_site
from ptlreid.datasets._synthetic.sites import SITES, Site

__all__ = ["SITES", "Site", "draw_site"]
