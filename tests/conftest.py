"""What holds for all tests."""

import signal

# Where tests run in the background, or under nohup, these are ignored, and every process they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
