"""OSNet (Zhou et al., ICCV 2019) at 0.5 of its width."""

from ptlreid.models.osnet import osnet

BACKBONE = osnet(0.5)
