"""Renders synthetic pedestrians: small datasets of a site's identities, seen by its cameras."""

from ptlreid.datasets._synthetic.render import render_site
from ptlreid.datasets._synthetic.sites import SITES, Site

__all__ = ["SITES", "Site", "render_site"]
