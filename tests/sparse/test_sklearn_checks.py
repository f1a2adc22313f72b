"""scikit-learn's own checks of an estimator, on the dictionary learner."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from triptych import ConvolutionalDictionaryLearning

# the checks' rows have from 1 to 20 numbers; codes of signals alone and in company are the same to what the gap allows
ESTIMATOR = ConvolutionalDictionaryLearning(3, size=1, code_tol=1e-9, max_iter=3, random_state=0)

pytestmark = pytest.mark.filterwarnings("ignore:fit stopped after:sklearn.exceptions.ConvergenceWarning")


@parametrize_with_checks([ESTIMATOR])
def test_scikit_learns_checks_hold(estimator, check):
    check(estimator)
