"""scikit-learn's own checks of an estimator, with settings small enough to run them all."""

import pytest
from sklearn.utils.estimator_checks import check_transformer_preserve_dtypes, parametrize_with_checks

from triptych import CCNNClassifier
from triptych.ccnn.settings import Layer

# the checks' data are blobs and noise, in few dimensions; float64, because they compare images alone and in company to 1e-7
SMALL = Layer(width=30, components=None, contrast=None, ridge=1e-3, radius=20.0, filters=4)
ESTIMATOR = CCNNClassifier(SMALL, precision="float64", random_state=0)

CANNOT_HOLD = {
    "check_transformer_preserve_dtypes": "maps are float32 whatever the images are: features are made in that at most",
}

# their rows of 1, 2, 10 and other numbers are signals, of which fit warns
pytestmark = pytest.mark.filterwarnings("ignore:rows of .* are read as signals:UserWarning")


@parametrize_with_checks([ESTIMATOR], expected_failed_checks=lambda estimator: CANNOT_HOLD)
def test_scikit_learns_checks_hold(estimator, check):
    check(estimator)


def test_no_check_is_excused_that_would_hold():
    with pytest.raises(AssertionError, match="does not preserve dtype"):
        check_transformer_preserve_dtypes("CCNNClassifier", ESTIMATOR)
    assert list(CANNOT_HOLD) == [check_transformer_preserve_dtypes.__name__]
