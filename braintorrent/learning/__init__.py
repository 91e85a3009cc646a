"""Train, merge, evaluate: a Method and a Task put to work. No network in here.

contract.py    what a Learner is
opening.py     federation and peer folder -> Learner
learner.py     a Task trained with torch (imported only when a task needs it)
parallel.py    the same in several processes, one per GPU
sharing.py     a Task of which each process does its slice
merging.py     blobs of other labs into one's own weights
passes.py      the readings of all models that this takes
gating.py      which of them are merged at all
"""

from braintorrent.learning.contract import Learner
from braintorrent.learning.opening import open_learner

__all__ = ["Learner", "open_learner"]
