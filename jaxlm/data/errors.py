from jaxlm.config import JaxlmError


class DataError(JaxlmError):
    """Text that cannot be found, read, split or cut into windows."""
