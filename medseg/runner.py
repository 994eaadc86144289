"""Segment a scan with an exported model, without torch and without medseg: NIfTI in, a mask on the scan's own grid out.

    python runner.py MODEL_FOLDER scan.nii.gz mask.nii.gz
    python runner.py MODEL_FOLDER t1.nii.gz,t2.nii.gz mask.nii.gz

It needs numpy, nibabel, onnxruntime (or openvino, where the model was exported to that) and this one file. The mask is that of
`medseg predict MODEL_FOLDER scan.nii.gz`: a test holds the two equal. Other formats, tilted (sheared) series and channels on
different grids are refused: they need medseg. Exit code 2, and one line that says what to mend.

Research use only. Not a medical device; not for diagnosis or treatment. Look at every mask that you rely on.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel import orientations as ornt

Array = npt.NDArray[Any]
Network = Callable[[Array], Array]
_SUFFIXES = (".nii.gz", ".nii")
_UNIT_MM = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
_UPRIGHT_DEG = 0.5
_MOST_VOXELS = 1.5e9
_HALF_VOXEL = 0.5 + 1e-4  # a voxel reaches half a step around its centre; the rest is rounding
_CHUNK = 1 << 22  # logits held at once on the scan's own grid: 16 MB


class Refused(Exception):
    """What a user should mend, in one line."""


def main(words: Sequence[str]) -> int:
    """Run the command line; gives the exit code."""
    try:
        if len(words) != 3:
            raise Refused("expected three words: MODEL_FOLDER scan.nii.gz[,second_channel.nii.gz] mask.nii.gz")
        found = segment(Path(words[0]), [Path(scan) for scan in words[1].split(",")], Path(words[2]))
        print(", ".join(f"{name} {ml:.3g} ml" for name, ml in found.items()))
        return 0
    except (Refused, OSError, MemoryError) as error:
        print(f"error: {' '.join(str(error).split()) or 'not enough memory'}", file=sys.stderr)
        return 2


def segment(folder: Path, scans: Sequence[Path], mask: Path) -> dict[str, float]:
    """Write the mask of one scan (one file per channel, or one with all); gives the volume of each structure in millilitres."""
    if not mask.name.lower().endswith(_SUFFIXES) or not mask.resolve().parent.is_dir():
        raise Refused("the mask must be a file that ends in .nii or .nii.gz, in a folder that exists.")
    if mask.resolve() in [scan.resolve() for scan in scans]:
        raise Refused("the mask would replace the scan. Name another file.")
    model = read_model(folder)
    network = open_networks(folder, model)
    array, affine, header = read_scan(scans)
    image, own, at = prepare(array, affine, model["preprocess"])
    voxel_ml = float(abs(np.linalg.det(affine[:3, :3]))) / 1000
    found = clean(restore(image, network, model, array.shape[1:], own, at), voxel_ml, model)
    write(found, affine, header, mask)
    return {item["name"]: float(_where(found, item, model).sum()) * voxel_ml for item in model["labels"]["items"]}


def read_model(folder: Path) -> dict[str, Any]:
    """The description of an exported model, whose files are those that were saved."""
    try:
        model = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        digest, runtime, hashes = model.pop("checksum"), model["runtime"], model["weights"]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise Refused("the folder holds no exported model (medseg export MODEL --to onnx -o FOLDER).") from error
    text = json.dumps(model, sort_keys=True, separators=(",", ":"))
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        raise Refused("config.json is not what was saved (its checksum differs). Copy the folder again.")
    if model["format"] != 1 or runtime == "torch":
        raise Refused("the model is one of torch, or of a later format: medseg export MODEL --to onnx -o FOLDER.")
    for name, expected in hashes.items():
        path = folder / Path(name).name
        if path.name != name or not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise Refused(f"'{name}' is missing or not what was saved (its SHA-256 differs). Copy the folder again.")
    labels = model["labels"]
    labels["written"] = labels["order"] or [item["values"][0] for item in labels["items"]]
    return model


def open_networks(folder: Path, model: dict[str, Any]) -> Network:
    """The mean of the ensemble, from a window `(C, *window)` to logits `(K, *window)`, on OMP_NUM_THREADS threads, or all."""
    threads, flat = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0], model["spatial_dims"] == 2
    try:
        members = [
            _opened(str(folder / name), int(threads or 0)) for name in model["weights"] if not name.endswith(".bin")
        ]
    except ImportError as error:
        raise Refused(f"{error.name} is not installed. Run: pip install {error.name}") from error
    except Exception as error:  # each runtime has errors of its own
        raise Refused(f"the networks cannot be opened: {error}. Update {model['runtime']}.") from error

    def mean(window: Array) -> Array:
        try:
            total = sum(member(window[None, ..., 0] if flat else window[None])[0] for member in members)
        except Exception as error:
            raise Refused(f"the network cannot be computed on this scan: {error}") from error
        logits = np.asarray(total if len(members) == 1 else total / len(members), np.float32)
        return logits[..., None] if flat else logits

    return mean


def _opened(path: str, threads: int) -> Network:
    if path.endswith(".onnx"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda windows: session.run(None, {"image": windows})[0]
    import openvino

    core, settings = openvino.Core(), {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    network = core.compile_model(core.read_model(path), "CPU", settings)
    return lambda windows: np.array(network(windows)[0])


def read_scan(paths: Sequence[Path]) -> tuple[Array, Array, Any]:
    """Channels `(C, I, J, K)` on one grid, its affine (index -> RAS+ mm), and the header of the first."""
    scans = [_read(path, f"channel {n}" if len(paths) > 1 else "the scan") for n, path in enumerate(paths, 1)]
    array, affine, header = scans[0]
    for n, (other, grid, _) in enumerate(scans[1:], 2):
        off_mm = np.linalg.norm(np.abs(grid - affine) @ [*array.shape[1:], 1])
        if other.shape[1:] != array.shape[1:] or off_mm > 0.05 * min(np.linalg.norm(affine[:3, :3], axis=0)):
            raise Refused(f"channel {n} lies on another grid than channel 1. Resample it, or use medseg predict.")
    return np.concatenate([a.astype(np.float32) for a, _, _ in scans]) if len(scans) > 1 else array, affine, header


def _read(path: Path, name: str) -> tuple[Array, Array, Any]:
    if not path.exists():
        raise Refused(f"{name} is not there: no such file.")
    if not path.is_file() or not path.name.lower().endswith(_SUFFIXES):
        raise Refused(f"{name} is no NIfTI file (.nii, .nii.gz). Convert it, or use medseg predict.")
    try:
        image: Any = nib.load(path)
        header, proxy, shape = image.header, image.dataobj, image.shape
        affine = np.diag([_UNIT_MM[header.get_xyzt_units()[0]]] * 3 + [1.0]) @ image.affine
        scaled = (proxy.slope, proxy.inter) != (1, 0) and proxy.dtype.kind in "iuf"
        with np.errstate(over="ignore", invalid="ignore"):
            array = np.asarray(proxy, np.float32) if scaled else np.asarray(proxy.get_unscaled())
            array = array.astype(np.float32 if array.dtype.kind == "f" else array.dtype.newbyteorder("="), copy=False)
    except Exception as error:  # nibabel, gzip and numpy have each their own
        raise Refused(f"{name} is no NIfTI file, cut short or damaged. Copy it again from its source.") from error
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise Refused(f"{name} holds NaN, infinite values or no numbers at all. Replace them by numbers.")
    usable = array.size and np.isfinite(affine).all() and abs(np.linalg.det(affine)) >= 1e-12
    if not usable or sum(n > 1 for n in shape[3:]) > 1:
        raise Refused(f"{name} has no usable grid: its shape is {shape}. Look at its header.")
    if (shear := _shear_deg(affine)) > _UPRIGHT_DEG:
        raise Refused(f"{name} has axes {shear:.2g} degrees off right angles (a tilted gantry?). Use medseg predict.")
    return np.moveaxis(array.reshape((*(*shape, 1)[:3], -1), order="F"), -1, 0), affine, header


def _shear_deg(affine: Array) -> float:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.degrees(np.arcsin(np.clip(np.abs(np.triu(axes.T @ axes, 1)).max(), 0, 1))))


def prepare(scan: Array, affine: Array, config: dict[str, Any]) -> tuple[Array, list[int], list[Array]]:
    """Reoriented, cropped, resampled and normalised.

    Returns:
        Image `(C, I, J, K)` in float32; for each of its axes the scan's that runs along it, and where the scan's voxels lie on
        it, as fractional indices.
    """
    if len(scan) != (channels := len(config["intensity"])):
        raise Refused(f"the model expects {channels} channel(s), the scan has {len(scan)}.")
    change = ornt.ornt_transform(ornt.io_orientation(affine), ornt.axcodes2ornt(config["orientation"]))
    own = [int(b) for b in np.argsort(change[:, 0])]
    image = np.moveaxis(ornt.apply_orientation(np.moveaxis(scan, 0, -1), change), -1, 0)
    positions = [np.arange(scan.shape[b + 1])[:: int(change[b, 1])].astype(float) for b in own]
    if config["crop_empty"] and image.any():
        box = _box(np.any(image, axis=0))
        image, positions = image[:, *box], [p - part.start for p, part in zip(positions, box, strict=True)]
    spacing = np.linalg.norm(affine[:3, own], axis=0)
    wanted = np.array([w or s for w, s in zip(config["spacing_mm"], spacing, strict=True)])
    if not np.allclose(wanted, spacing, rtol=0.01):
        step, shape = wanted / spacing, np.array(image.shape[1:])
        size = np.maximum(1, np.ceil(shape / step - 1e-3))
        if size.prod() > _MOST_VOXELS:
            raise Refused(f"the prepared scan would have {size.prod():.2g} voxels. Is its header right?")
        start = (shape - 1) / 2 - step * (size - 1) / 2  # over the same extent, centred
        grid = [first + s * np.arange(n) for first, s, n in zip(start, step, size, strict=True)]
        image = pull(image.astype(np.float32), grid, np.zeros(channels), [max(1.0, s) for s in step])
        positions = [(p - first) / s for p, first, s in zip(positions, start, step, strict=True)]
    return np.stack([_normalised(c, how) for c, how in zip(image, config["intensity"], strict=True)]), own, positions


def _box(mask: Array) -> tuple[slice, ...]:
    hits = [np.flatnonzero(mask.any(axis=tuple(b for b in range(3) if b != a))) for a in range(3)]
    return tuple(slice(int(hit[0]), int(hit[-1]) + 1) if len(hit) else slice(0, 0) for hit in hits)


def _normalised(channel: Array, how: dict[str, Any]) -> Array:
    values = channel.astype(np.float32)
    if how["kind"] == "clip":
        return np.asarray((np.clip(values, how["low"], how["high"]) - how["mean"]) / how["std"], np.float32)
    if how["kind"] == "none":
        return values
    largest = max(values.max(), -values.min())
    np.ldexp(values, -math.frexp(largest)[1], out=values)  # so that no square is too large or small
    inside = values[values != 0]
    inside = inside if inside.size else values
    return np.asarray((values - inside.mean()) / max(float(inside.std()), 1e-6), np.float32)


def pull(source: Array, positions: Sequence[Array], fill: Array, supports: Sequence[float] = (1, 1, 1)) -> Array:
    """Values of `(C, I, J, K)` at fractional indices along each axis, linear; `fill`, one per channel, more than half a voxel outside.

    A support above 1 is the half-width of the triangle where the result is coarser, which keeps it from aliasing.
    """
    for axis in sorted(range(3), key=lambda a: len(positions[a]) / source.shape[a + 1]):
        source = _along(source, axis + 1, positions[axis], supports[axis], fill)
    return source


def _along(x: Array, axis: int, positions: Array, support: float, fill: Array) -> Array:
    size, view = x.shape[axis], [-1 if n == axis else 1 for n in range(4)]
    outside = (positions < -_HALF_VOXEL) | (positions > size - 1 + _HALF_VOXEL)
    positions, result = np.clip(positions, 0, size - 1), x
    if len(positions) != size or np.abs(positions - np.arange(size)).max() >= 1e-6:
        taps = np.floor(positions - support).astype(int)[:, None] + 1 + np.arange(math.ceil(2 * support))
        offsets = taps - positions[:, None]
        weights = np.maximum(0, 1 - np.abs(offsets) / support)
        weights /= weights.sum(1, keepdims=True)
        first, second = ((weights * offsets**n).sum(1, keepdims=True) for n in (1, 2))
        weights *= 1 - first / np.maximum(second, 1e-12) * offsets  # so that a linear function stays what it is
        weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
        result = np.zeros((*x.shape[:axis], len(positions), *x.shape[axis + 1 :]), np.float32)
        for index, weight in zip(taps.clip(0, size - 1).T, weights.T, strict=True):
            result += x.take(index, axis) * weight.reshape(view)
    return np.where(outside.reshape(view), np.float32(fill).reshape(-1, 1, 1, 1), result) if outside.any() else result


def restore(
    image: Array, network: Network, model: dict[str, Any], home: Sequence[int], own: Sequence[int], at: Sequence[Array]
) -> Array:
    """The mask in file values, `(1 or K, I, J, K)`, on the scan's grid `home`; `own` and `at` as `prepare` gives them."""
    labels, window, overlap = model["labels"], model["inference"]["window"], model["inference"]["overlap"]
    axis = int(np.argmax([len(_starts(n, w, overlap)) for n, w in zip(image.shape[1:], window, strict=True)]))
    order = [axis, *(a for a in range(3) if a != axis)]  # the axis with most windows comes first
    turn = [0, *(a + 1 for a in order)]
    exclusive, classes = labels["exclusive"], len(labels["items"]) + labels["exclusive"]
    outside = np.array([0.0 if exclusive and n == 0 else -1e4 for n in range(classes)])
    found = np.zeros((1 if exclusive else classes, *home), np.min_scalar_type(classes))
    turned = found.transpose(0, *(own[a] + 1 for a in order))  # a view: what is written here is written to the mask

    def turning(cut: Array) -> Array:
        return network(np.ascontiguousarray(cut.transpose(np.argsort(turn)))).transpose(turn)

    air = model["inference"].get("air")
    stream = slabs(image.transpose(turn), turning, [window[a] for a in order], overlap, outside, air)
    for rows, logits in at_home(stream, image.shape[axis + 1], [at[a] for a in order], outside):
        turned[:, rows] = _best(logits) if exclusive else logits > 0
    if not exclusive and not labels["order"]:
        return found
    values = np.array([0, *labels["written"]], np.int32)
    if exclusive:
        return values[found]
    mask = np.zeros((1, *home), values.dtype)
    for channel, value in zip(found, values[1:], strict=True):
        mask[0][channel > 0] = value
    return mask


def _starts(length: int, window: int, overlap: float) -> list[int]:
    last = max(0, length - window)
    gaps = math.ceil(last / max(1, int(window * (1 - overlap) + 1e-6)))
    return [n * last // max(1, gaps) for n in range(gaps + 1)]


def slabs(
    image: Array, network: Network, window: Sequence[int], overlap: float, background: Array, air: float | None
) -> Iterator[Array]:
    """Mean logits `(K, I, J, K)` of overlapping windows, in order along the first axis, as soon as no later one changes them;
    `background`, one per channel, where no value of any window is above `air`.
    """
    size = image.shape[1:]
    short = [max(0, w - n) for w, n in zip(window, size, strict=True)]
    image = np.pad(image, [(0, 0), *((s // 2, s - s // 2) for s in short)])
    inside = [slice(s // 2, s // 2 + n) if s else slice(None) for s, n in zip(short, size, strict=True)]
    lattice = [_starts(n, w, overlap) for n, w in zip(image.shape[1:], window, strict=True)]
    bells = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in window]
    weight = np.maximum(np.einsum("i,j,k->ijk", *bells), 1e-3).astype(np.float32)
    sums = np.zeros((len(background) + 1, window[0], *image.shape[2:]), np.float32)  # of logits, and of weights last
    for start, stop in itertools.pairwise([*lattice[0], image.shape[1]]):
        for corner in itertools.product([start], *lattice[1:]):
            i, j, k = (slice(c, c + w) for c, w in zip(corner, window, strict=True))
            if air is None or image[:, i, j, k].max() > air:
                sums[:-1, :, j, k] += network(image[:, i, j, k]) * weight
                sums[-1, :, j, k] += weight
        total, weights = np.split(sums[:, : stop - start][:, *inside], [-1])
        empty = np.float32(background).reshape(-1, 1, 1, 1)
        yield np.divide(total, weights, out=np.broadcast_to(empty, total.shape).copy(), where=weights > 0)
        sums[:, : start - stop] = sums[:, stop - start :].copy()
        sums[:, start - stop :] = 0


def at_home(
    stream: Iterator[Array], length: int, positions: Sequence[Array], outside: Array
) -> Iterator[tuple[slice, Array]]:
    """Rows of the scan and their logits, some at a time, as soon as all slabs that they lie between have come."""
    rows = np.argsort(positions[0], kind="stable")
    low, high = (edge(positions[0][rows]).clip(0, length - 1).astype(int) for edge in (np.floor, np.ceil))
    most = max(1, _CHUNK // (len(outside) * len(positions[1]) * len(positions[2])))
    held, begin, done = np.zeros((len(outside), 0, 1, 1), np.float32), 0, 0
    for logits in stream:
        if not np.isfinite(logits.sum()):
            raise Refused("the model gives values that are not numbers on this scan. Look at the scan's values.")
        held = np.concatenate([held, logits], 1) if held.size else logits
        ready = int(np.searchsorted(high, begin + held.shape[1]))
        for n in range(done, ready, most):
            some = rows[n : min(n + most, ready)]
            box = slice(int(some.min()), int(some.max()) + 1)
            yield box, pull(held, [positions[0][box] - begin, *positions[1:]], outside)
        done = ready
        unused = min(held.shape[1], int(low[done]) - begin if done < len(low) else held.shape[1])
        held, begin = held[:, unused:].copy(), begin + unused


def _best(logits: Array) -> Array:
    top, found = logits[0].copy(), np.zeros(logits.shape[1:], np.min_scalar_type(len(logits)))
    for number, other in enumerate(logits[1:], 1):
        np.copyto(found, number, where=other > top)
        np.maximum(top, other, out=top)
    return found


def _where(array: Array, item: dict[str, Any], model: dict[str, Any]) -> Array:
    channel = model["labels"]["items"].index(item)
    return np.isin(array[0], item["values"]) if len(array) == 1 else array[channel] > 0


def clean(array: Array, voxel_ml: float, model: dict[str, Any]) -> Array:
    """The mask without the pieces that the model's description wants removed; what else lies there comes to light."""
    config, labels = model["postprocess"], model["labels"]
    items = labels["items"]
    for name in dict.fromkeys((*config["largest_component"], *config["minimum_ml"])):
        item = next(item for item in items if item["name"] == name)
        found = _where(array, item, model)
        box = _box(found)
        pieces, sizes = components(found[box])
        keep = sizes >= config["minimum_ml"].get(name, 0) / voxel_ml
        if name in config["largest_component"] and len(sizes):
            keep &= np.arange(len(sizes)) == np.argmax(sizes)
        channel = array[0 if len(array) == 1 else items.index(item)][box]
        gone = ~np.concatenate([[True], keep])[pieces]
        left = np.zeros_like(channel[gone])
        for other, value in zip(items, labels["written"], strict=True):
            if len(array) == 1 and value not in item["values"]:
                left[np.isin(channel[gone], other["values"])] = value
        channel[gone] = left
    return array


def components(mask: Array) -> tuple[Array, Array]:
    """Pieces of a 3D mask that hang together by faces, edges or corners, numbered from 1 in reading order, and their voxels.

    Runs along the last axis are joined to the runs of neighbouring rows that they touch, under the smallest number.
    """
    # With an empty edge all around, no run touches the row after its own.
    _, height, width = (n + 2 for n in mask.shape)
    edges = np.diff(np.pad(mask, 1).ravel().astype(np.int8), prepend=0)
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    steps = [(a * height + b) * width for a, b in ((0, 1), (1, -1), (1, 0), (1, 1))]
    one, other = np.concatenate([_touching(starts, stops, step) for step in steps], 1)
    root = np.arange(len(starts))
    while (root[one] != root[other]).any():
        first, second = root[one], root[other]
        np.minimum.at(root, np.maximum(first, second), np.minimum(first, second))
        while (root != root[root]).any():
            root = root[root]
    pieces = np.zeros(mask.shape, np.int32)
    pieces[mask] = np.repeat(np.unique(root, return_inverse=True)[1] + 1, stops - starts)
    return pieces, np.bincount(pieces.ravel())[1:]


def _touching(starts: Array, stops: Array, step: int) -> Array:
    """Pairs of runs `(2, N)`: the second touches the first where that is moved by a step."""
    low, high = np.searchsorted(stops, starts + step), np.searchsorted(starts, stops + step, "right")
    count = np.maximum(high - low, 0)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.stack([np.repeat(np.arange(len(starts)), count), np.repeat(low, count) + within])


def write(array: Array, affine: Array, header: Any, path: Path) -> None:
    """The mask with the grid, codes and number of axes of the scan, whole or not at all; channels on axis four."""
    low, high, shape = int(array.min()), int(array.max()), header.get_data_shape()
    array = array.astype(np.min_scalar_type(high if low >= 0 else min(low, -high - 1)))
    data = (
        array[0].reshape(shape if math.prod(shape[3:]) == 1 else shape[:3])
        if len(array) == 1
        else np.moveaxis(array, 0, -1)
    )
    image = (nib.Nifti2Image if max(data.shape) > 32767 else nib.Nifti1Image)(data, affine, dtype=data.dtype)
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    if _shear_deg(affine) > 0.01:
        qform_code = 0  # it cannot hold shear
    if not sform_code and not qform_code and not np.allclose(image.header.get_base_affine(), affine):
        sform_code = 1
    image.set_sform(affine, sform_code)
    image.set_qform(affine, qform_code)
    image.header.set_xyzt_units("mm")
    with tempfile.TemporaryDirectory(prefix=".runner-", dir=path.resolve().parent) as folder:
        nib.save(image, Path(folder) / path.name)
        os.replace(Path(folder) / path.name, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
