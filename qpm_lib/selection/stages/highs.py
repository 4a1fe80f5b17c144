"""HiGHS as this package uses it: on one thread, and without a word."""

import highspy

INFINITE = highspy.kHighsInf


class Highs(highspy.Highs):
    """A model on one thread; further options by name.

    The library prints its banner while its callbacks are set up, before an option can be given.
    """

    def __init__(self, **options: str | int | bool) -> None:
        super().__init__()
        for name, setting in {"output_flag": False, "threads": 1, **options}.items():
            self.setOptionValue(name, setting)

    def enableCallbacks(self) -> None:  # noqa: N802 - the library's name
        """Switch the output off first."""
        self.setOptionValue("output_flag", False)
        super().enableCallbacks()
