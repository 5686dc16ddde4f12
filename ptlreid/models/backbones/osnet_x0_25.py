"""OSNet (Zhou et al., ICCV 2019) at 0.25 of its width."""

from ptlreid.models.osnet import osnet

BACKBONE = osnet(0.25)
