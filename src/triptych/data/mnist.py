"""MNIST: 60,000 + 10,000 handwritten digits of 28 x 28 pixels (LeCun, Cortes & Burges, 1998)."""

from triptych.data.download import Download, DownloadSet

# The mirror of the original .gz files. Their SHA-256 agree over many independent publications; they belong to these exact
# gzip files, and files packed anew have others although they hold the same images.
ADDRESS = "https://ossci-datasets.s3.amazonaws.com/mnist/"
SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
MNIST = DownloadSet("mnist", tuple(Download(ADDRESS + name, name, f"sha256:{sha}") for name, sha in SHA256.items()))
