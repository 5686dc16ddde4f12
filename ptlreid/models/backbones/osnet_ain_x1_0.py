"""OSNet-AIN (Zhou et al., TPAMI 2021) at its full width."""

from ptlreid.models.osnet import AIN, osnet

BACKBONE = osnet(1.0, instance_norm=AIN)
