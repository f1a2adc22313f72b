"""The settings of one convexified layer, and how those that are left open follow from the shape of its input."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from triptych.ccnn.kernels import Gaussian, InversePolynomial, Kernel, Linear
from triptych.check import InputError, choice, real, whole, wrong

MOST_LAYERS = 8
KERNELS = {kernel.name: kernel for kernel in (Gaussian, InversePolynomial, Linear)}


@dataclass(frozen=True)
class Layer:
    """One convexified layer: patches, kernel, pooling, the problem and the filters that are kept.

    Parameters
    ----------
    patch : side of the square patches in pixels; None: 5, or 3 where the maps are smaller than 20.
    contrast : offset of the contrast normalisation of patches; None: none.
    ridge : what whitening adds to the eigenvalues of the patches' covariance; None: patches are not whitened. Either way,
        and but for the linear kernel, patches are then centred and scaled such that E ‖z‖₂² = 1, on which gamma acts.
    kernel : Gaussian(gamma), InversePolynomial() or Linear().
    method : "random" features or "nystrom" landmarks.
    width : number of features or landmarks, m.
    window, stride : average pooling of the features, in positions; None: a quarter of the side, and half of that.
    components : leading principal components of the pooled features that are kept, q; None: all.
    power : component j is divided by eigenvalue_j^power (0: not at all, 0.5: whitened).
    centre : whether the pooled features are centred, and scaled such that E ‖z_p‖₂² = 1.
    radius : radius R of the nuclear-norm ball.
    filters : filters kept for the next layer, r.
    map_window, map_stride : average pooling of the maps that the next layer reads; None: as ``window``, ``stride``.

    Raises InputError for wrong values. Zhang, Liang & Wainwright, ICML 2017, Algorithm 1.
    """

    patch: int | None = None
    contrast: float | None = 0.1
    ridge: float | None = 0.1
    kernel: Kernel = field(default_factory=lambda: Gaussian(0.7))
    method: str = "random"
    width: int = 1000
    window: int | None = None
    stride: int | None = None
    components: int | None = 256
    power: float = 0.3
    centre: bool = True
    radius: float = 100.0
    filters: int = 32
    map_window: int | None = None
    map_stride: int | None = None

    def __post_init__(self) -> None:
        for name in ("patch", "window", "stride", "components", "map_window", "map_stride"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name))
        for name in ("width", "filters"):
            whole(name, getattr(self, name))
        for name in ("contrast", "ridge"):
            if getattr(self, name) is not None:
                real(name, getattr(self, name), above=0.0)
        real("power", self.power, low=0.0, high=1.0)
        real("radius", self.radius, above=0.0)
        choice("method", self.method, ("random", "nystrom"))
        if not isinstance(self.kernel, tuple(KERNELS.values())):
            raise wrong("kernel", "Gaussian(gamma), InversePolynomial() or Linear()", self.kernel)

    def resolved(self, shape: tuple[int, int, int]) -> "Layer":
        """The same layer with nothing left open, for maps of shape (c, h, w). Raises InputError where it does not fit."""
        side = max(self.places(shape))
        window = self.window or max(1, -(-side // 4))
        stride = self.stride or max(1, window // 2)
        map_window = self.map_window or window
        map_stride = self.map_stride or (stride if self.map_window is None else self.map_window)
        for name, value in (("window", window), ("map_window", map_window)):
            if value > side:
                raise InputError(
                    f"{name} must be at most {side}, the number of patch positions a side, got {value}; take a smaller "
                    "one, or larger images"
                )
        patch = self._side(shape)
        return replace(self, patch=patch, window=window, stride=stride, map_window=map_window, map_stride=map_stride)

    def places(self, shape: tuple[int, int, int]) -> tuple[int, int]:
        """Patch positions (H, W) on maps of shape (c, h, w); a map lower or narrower than the patch has one."""
        side = self._side(shape)
        return max(1, shape[1] - side + 1), max(1, shape[2] - side + 1)

    def _side(self, shape: tuple[int, int, int]) -> int:
        """The side of the patches."""
        return self.patch or min(5 if min(shape[1:]) >= 20 else 3, max(shape[1:]))


def linear_layer(patch: int, radius: float, filters: int, *, window: int = 1, stride: int = 1) -> Layer:
    """The layer of linear activations, exactly: H(x)_k = tr(Z(x) A_k), Z the (pooled) patches themselves."""
    return Layer(
        patch=patch,
        contrast=None,
        ridge=None,
        kernel=Linear(),
        window=window,
        stride=stride,
        components=None,
        power=0.0,
        centre=False,
        radius=radius,
        filters=filters,
    )


def layers_of(
    layers: int | Layer | Sequence[Layer], radius: float | None, shape: tuple[int, int, int]
) -> tuple[Layer, ...]:
    """The settings that ``layers`` means for images (c, h, w): a number of default layers, or these. Raises InputError."""
    if isinstance(layers, Layer):
        chosen: tuple[Layer, ...] = (layers,)
    elif (
        isinstance(layers, Sequence)
        and not isinstance(layers, str)
        and layers
        and all(isinstance(x, Layer) for x in layers)
    ):
        chosen = tuple(layers)
    else:
        chosen = default_layers(whole("layers", layers, high=MOST_LAYERS), shape)
    return (
        chosen
        if radius is None
        else tuple(replace(layer, radius=real("radius", radius, above=0.0)) for layer in chosen)
    )


def default_layers(count: int, shape: tuple[int, int, int]) -> tuple[Layer, ...]:
    """Default settings of ``count`` layers for images of shape (c, h, w).

    One layer pools over a quarter of the image. Of several, all but the last pool little, so that the next has maps to
    read: about 12 positions a side after the first; the later ones pool over two fifths.
    """
    signal = 1 in shape[1:]  # the level of a signal is information
    layer = Layer(contrast=None, ridge=1e-3) if signal else Layer()
    layers: list[Layer] = []
    while len(layers) < count - 1:
        side = max(layer.places(shape))
        window = max(1, side // 12 if not layers else min(2, side // 4))
        layer = replace(layer, width=500, components=128, window=window, stride=window)
        layers.append(layer)
        tall, wide = (max(1, size // window) for size in layer.places(shape))
        shape = (layer.filters, tall, wide)
        layer = Layer(patch=min(3, max(tall, wide)))
    if not layers:
        return (layer,)
    window = max(1, 2 * max(layer.places(shape)) // 5)
    return (*layers, replace(layer, window=window, stride=max(1, window // 2)))
