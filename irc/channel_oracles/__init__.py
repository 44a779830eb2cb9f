"""Proofs that channel groups are right, on the model itself: two models that must compute the same if they are.

- `permuted`: atoms of a family change places, in every slot. One coordinate that the analysis missed or misplaced
  changes the outputs. It needs no data and holds for every operator.
- `masked` against `cut`: coordinates that do not survive are zeroed wherever a product reads them; what is left must be
  what the cut model computes. It holds for families whose removal changes no statistic.
- `commuted` against `cut`: atoms change places and the same ones are cut. It holds for all families.
"""

from irc.channel_oracles.commutation import commuted
from irc.channel_oracles.correspondence import correspondence
from irc.channel_oracles.masking import masked
from irc.channel_oracles.permutation import permuted
from irc.channel_oracles.proof import Proof, prove, random_survivors
from irc.channel_oracles.relative_error import relative_error

__all__ = ["Proof", "commuted", "correspondence", "masked", "permuted", "prove", "random_survivors", "relative_error"]
