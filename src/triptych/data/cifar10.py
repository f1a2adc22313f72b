"""CIFAR-10: 50,000 + 10,000 photographs of 32 x 32 pixels, the binary version (Krizhevsky, 2009)."""

from triptych.data.download import Download, DownloadSet

# The author's page gives the MD5 c32a1d4ab5d03f1284b67883e8d87530; this SHA-256 is published beside it by several
# independent users. 170,052,171 bytes.
ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
CIFAR10 = DownloadSet(
    "cifar-10",
    (Download(ADDRESS, "cifar-10-binary.tar.gz", f"sha256:{SHA256}"),),
    unpacks_to="cifar-10-batches-bin",
)
