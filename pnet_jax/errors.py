"""The ways a run ends early without being a bug."""


class UserError(Exception):
    """A mistake in the user's input: one plain sentence that names the thing and the remedy.

    `main` prints the sentence without a stack trace and exits with code 2.
    """


class TrainingError(Exception):
    """Training cannot go on (a loss that is not a number, too many corrupt images).

    `main` prints the sentence without a stack trace and exits with code 1.
    """


class Preempted(Exception):
    """SIGTERM came, and what is to be continued is saved.

    `main` prints the sentence and exits with code 42.
    """
