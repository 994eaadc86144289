"""The errors that medseg raises for a user's mistake: one line that says what was expected, what came and what to do."""


class MedsegError(Exception):
    """Base of all errors a user can cause. The command line prints it as one line and exits with code 2."""


class DataError(MedsegError):
    """A file or a dataset cannot be used as it is."""


class GeometryError(DataError):
    """Two volumes do not lie in the same space, or a grid cannot be used."""


class ConfigError(MedsegError):
    """An option, a name or a value in a configuration is not known or not allowed."""


class BundleError(MedsegError):
    """A stored model is damaged, incomplete or of an unknown format."""


class RunError(MedsegError):
    """A run folder is in use, or belongs to something else."""


class Interrupted(MedsegError):
    """A signal ended the work after its state was saved; the command line exits with code 75 ("try again later")."""
