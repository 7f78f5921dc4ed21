import pytest

from jaxlm.training import fit
from tests.training.runs import tiny


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> str:
    """The directory of a run that was trained for a moment."""
    config = tiny(tmp_path_factory.mktemp("verbs"), train={"steps": 1}, sample={"every": 0})
    fit(config)
    return config.run.dir
