"""Files in, Images out: one file a format or source."""

from triptych.data.recognise import load, splits
from triptych.data.split import concatenate, permute_split

__all__ = ["concatenate", "load", "permute_split", "splits"]
