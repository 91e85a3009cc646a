"""Train, merge, evaluate: a Method and a Task put to work. No network in here.

    opening.py     federation and peer folder -> Learner
    learner.py     a Task trained with torch (imported only when a task needs it)
    evaluation.py  metrics over cases
    merging.py     blobs of other labs into one's own weights
"""

from braintorrent.learning.opening import open_learner

__all__ = ["open_learner"]
