"""Fashion-MNIST: 60,000 + 10,000 articles of clothing of 28 x 28 pixels (Xiao, Rasul & Vollgraf, arXiv:1708.07747)."""

from triptych.data.download import Download, DownloadSet

# The authors' own address, plain HTTP: the checksum is what can be trusted. Their list gives MD5; these SHA-256 are
# published beside the same MD5 by several independent users.
ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
SHA256 = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
FASHION_MNIST = DownloadSet(
    "fashion-mnist", tuple(Download(ADDRESS + name, name, f"sha256:{sha}") for name, sha in SHA256.items())
)
