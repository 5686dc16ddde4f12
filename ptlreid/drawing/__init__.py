"""Synthetic pedestrians: draws small data sets of people seen by the cameras of a site."""

from ptlreid.drawing.crews import draw_site
from ptlreid.drawing.sites import SITES, Site

__all__ = ["SITES", "Site", "draw_site"]
