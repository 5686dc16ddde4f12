"""OSNet (Zhou et al., ICCV 2019) at its full width."""

from ptlreid.models.osnet import osnet

BACKBONE = osnet(1.0)
