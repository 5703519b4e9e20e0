"""DWPose: where a person's body, face and hands are, drawn as the skeleton picture FastFit was trained with.

Two ONNX networks run through onnxruntime: YOLOX finds people, RTMPose places 133 points on each. All arithmetic
follows the FastFit inference specification, section 3.2; `engine/pose.py` does the drawing.
Papers: Yang et al. 2023 (DWPose), Ge et al. 2021 (YOLOX), Li et al. 2022 (SimCC).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fastfit_watch.domain.errors import BundleError, EngineError
from fastfit_watch.engine.parsers.affine import Anchor, upright_warp
from fastfit_watch.engine.parsers.pose_drawing import detect_size, draw_pose, resize_back

_VERIFY_HINT = "Run `fastfit-watch models verify`."

DETECTOR_SIDE = 640
_STRIDES = (8, 16, 32)
_GREY = 114
_ANY_SCORE = 0.1
_PERSON_SCORE = 0.3
_OVERLAP_LIMIT = 0.45

POSE_HEIGHT, POSE_WIDTH = 384, 288
_POSE_SIZE_XY = np.array([POSE_WIDTH, POSE_HEIGHT])
_SPLIT = 2.0  # SimCC bins per pixel
_BOX_MARGIN = 1.25
_MEAN = np.array([123.675, 116.28, 103.53])
_STD = np.array([58.395, 57.12, 57.375])

_VISIBLE = 0.3
_SHOULDERS = [5, 6]
_NECK = 17
# COCO order, with the neck put in at 17, to OpenPose order.
_OPENPOSE_BODY = [0, 17, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]


class DWPose:
    """Both ONNX sessions, loaded once. `draw` keeps nothing between calls and may run in several threads."""

    def __init__(self, detector_onnx: Path, pose_onnx: Path, device: str = "cpu", threads: int | None = None) -> None:
        """Load both networks.

        Parameters
        ----------
        detector_onnx: `yolox_l.onnx`.
        pose_onnx: `dw-ll_ucoco_384.onnx`.
        device: where to compute: `cpu`, `cuda`, `cuda:1`. A GPU is never swapped for the CPU in silence.
        threads: CPU threads for one network; None lets onnxruntime choose.

        Raises
        ------
        BundleError: a file is missing or is not the ONNX network it should be.
        EngineError: a GPU was asked for and onnxruntime cannot use it here.
        """
        detector_shape, pose_shape = (1, 3, DETECTOR_SIDE, DETECTOR_SIDE), (1, 3, POSE_HEIGHT, POSE_WIDTH)
        self._detector = open_session(detector_onnx, detector_shape, device, threads)
        self._pose = open_session(pose_onnx, pose_shape, device, threads)

    @property
    def providers(self) -> tuple[str, ...]:
        """onnxruntime's execution providers really in use, first choice first."""
        return tuple(self._pose.get_providers())

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the skeletons of everybody in `image`, uint8 RGB (H, W, 3) in and out, on black."""
        picture = resize_for_detection(image)
        keypoints, scores = self.find_keypoints(picture, self.find_people(picture))
        drawing = draw_pose(keypoints, scores, picture.shape[:2])
        return resize_back(drawing, image.shape[:2])

    def find_people(self, picture: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return boxes (n, 4) as x0, y0, x1, y1 in pixels of `picture`, best first; all of it if nobody is seen."""
        pixels, ratio = letterbox(picture)
        (rows,) = _run(self._detector, pixels, [(1, 8400, 85)])
        boxes = decode_people(rows[0], ratio)
        if len(boxes):
            return boxes
        height, width = picture.shape[:2]
        return np.array([[0, 0, width, height]], np.float64)

    def find_keypoints(
        self, picture: NDArray[np.uint8], boxes: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return OpenPose-ordered points (n, 134, 2) in pixels of `picture` and scores (n, 134), one person a box."""
        people = [self._read_person(picture, box) for box in boxes]
        keypoints = np.stack([points for points, _ in people])
        scores = np.stack([score for _, score in people])
        return to_openpose(keypoints, scores)

    def _read_person(
        self, picture: NDArray[np.uint8], box: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        centre, scale = frame_person(box)
        pixels = cut_person(picture, centre, scale)
        expected = [(1, 133, int(POSE_WIDTH * _SPLIT)), (1, 133, int(POSE_HEIGHT * _SPLIT))]
        simcc_x, simcc_y = _run(self._pose, pixels, expected)
        points, scores = decode_simcc(simcc_x[0], simcc_y[0])
        return to_picture(points, centre, scale), scores


def open_session(
    path: Path, input_shape: tuple[int, ...], device: str, threads: int | None
) -> onnxruntime.InferenceSession:
    """Load one ONNX file that takes one picture of `input_shape`. Raises BundleError or EngineError, see `DWPose`."""
    if not path.is_file():
        raise BundleError(f"{path} is missing.", hint="Run `fastfit-watch models pull`.")
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    first, _, number = device.partition(":")
    wanted: list[tuple[str, dict[str, str]]] = [("CPUExecutionProvider", {})]
    if first == "cuda":
        onnxruntime.preload_dlls()  # finds the CUDA libraries that came with torch
        wanted.insert(0, ("CUDAExecutionProvider", {"device_id": number or "0"}))
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:  # onnxruntime's own errors share no narrower base
        raise BundleError(f"{path} cannot be loaded: {error}", hint=_VERIFY_HINT) from error
    if wanted[0][0] not in session.get_providers():
        raise EngineError(
            f"onnxruntime cannot use CUDA for {path.name}: it offers {', '.join(session.get_providers())}.",
            hint="Run DWPose on the CPU, or install an onnxruntime-gpu that matches this machine's CUDA and cuDNN.",
        )
    declared = tuple(session.get_inputs()[0].shape)
    fixed = tuple(size if isinstance(size, int) else free for size, free in zip(declared, input_shape, strict=False))
    if fixed != input_shape:
        raise BundleError(
            f"{path} takes pictures of shape {declared}, not {input_shape}: it is another network.", hint=_VERIFY_HINT
        )
    return session


def _run(
    session: onnxruntime.InferenceSession, pixels: NDArray[np.float32], shapes: Sequence[tuple[int, ...]]
) -> list[NDArray[np.float32]]:
    outputs: list[NDArray[np.float32]] = session.run(None, {session.get_inputs()[0].name: pixels})
    found = [output.shape for output in outputs]
    if found != list(shapes):
        raise BundleError(
            f"A pose network answered with shapes {found} instead of {list(shapes)}: it is another model.",
            hint=_VERIFY_HINT,
        )
    return outputs


def resize_for_detection(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resize uint8 (H, W, 3) so that the short side is about 512 and both sides are multiples of 64."""
    height, width = detect_size(image.shape[:2])
    enlarges = min(image.shape[:2]) < 512
    method = cv2.INTER_LANCZOS4 if enlarges else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)


def letterbox(picture: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
    """Fit uint8 (H, W, 3) into the detector's input: float32 (1, 3, 640, 640), 0..255, and the scale that was used."""
    height, width = picture.shape[:2]
    ratio = min(DETECTOR_SIDE / height, DETECTOR_SIDE / width)
    inner = cv2.resize(picture, (int(width * ratio), int(height * ratio)), interpolation=cv2.INTER_LINEAR)
    canvas = np.full((DETECTOR_SIDE, DETECTOR_SIDE, 3), _GREY, np.float32)
    canvas[: inner.shape[0], : inner.shape[1]] = inner
    return _to_batch(canvas), ratio


def decode_people(rows: NDArray[np.float32], ratio: float) -> NDArray[np.float64]:
    """Turn the detector's rows, float32 (8400, 85), into people's boxes (n, 4) in pixels of the picture, best first.

    A row holds centre x, y, log width, log height, objectness and 80 class probabilities, the first of them a person.
    Only people are decoded: overlaps are judged within one class, so the other 79 cannot change the answer.
    """
    sides = [DETECTOR_SIDE // stride for stride in _STRIDES]
    cells = np.concatenate([np.stack(np.meshgrid(np.arange(n), np.arange(n)), -1).reshape(-1, 2) for n in sides])
    strides = np.repeat(_STRIDES, [side * side for side in sides])[:, None]
    centres = ((rows[:, :2] + cells) * strides).astype(np.float32)
    halves = (np.exp(rows[:, 2:4]) * strides).astype(np.float32) / 2
    boxes = (np.concatenate([centres - halves, centres + halves], axis=1) / ratio).astype(np.float32)
    scores = rows[:, 4] * rows[:, 5]
    kept = suppress_overlaps(boxes, scores)
    return boxes[kept[scores[kept] > _PERSON_SCORE]].astype(np.float64)


def suppress_overlaps(boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the rows to keep of boxes (n, 4) of one class, best score first: greedy non-maximum suppression.

    Scores up to 0.1 are dropped. Widths and overlaps count pixels with both ends, hence the ones added.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > _ANY_SCORE]
    x0, y0, x1, y1 = boxes.T
    areas = (x1 - x0 + 1) * (y1 - y0 + 1)
    kept: list[int] = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        width = np.minimum(x1[best], x1[rest]) - np.maximum(x0[best], x0[rest]) + 1
        height = np.minimum(y1[best], y1[rest]) - np.maximum(y0[best], y0[rest]) + 1
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        order = rest[shared / (areas[best] + areas[rest] - shared) <= _OVERLAP_LIMIT]
    return np.array(kept, np.intp)


def frame_person(box: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return centre (x, y) and size (w, h) in pixels of the 3:4 frame round a box, a quarter larger than it."""
    centre = (box[:2] + box[2:]) / 2
    width, height = (box[2:] - box[:2]) * _BOX_MARGIN
    aspect = POSE_WIDTH / POSE_HEIGHT
    if width > height * aspect:
        return centre, np.array([width, width / aspect])
    return centre, np.array([height * aspect, height])


def person_warp(centre: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the 2x3 matrix from the picture to the pose network's input."""
    target = Anchor(_POSE_SIZE_XY / 2, POSE_WIDTH / 2)
    return upright_warp(Anchor(centre, float(scale[0]) / 2), target)


def cut_person(
    picture: NDArray[np.uint8], centre: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Cut one framed person out of uint8 (H, W, 3): float32 (1, 3, 384, 288), normalised, black outside the picture."""
    warp = person_warp(centre, scale)
    cut = cv2.warpAffine(picture, warp, (POSE_WIDTH, POSE_HEIGHT), flags=cv2.INTER_LINEAR)
    return _to_batch((cut - _MEAN) / _STD)


def decode_simcc(
    simcc_x: NDArray[np.float32], simcc_y: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Read points (n, 2) in pixels of the network's input and scores (n,) from SimCC rows (n, bins) of both axes.

    A point nobody believes in (score 0 or less) lies at (-0.5, -0.5).
    """
    scores = np.minimum(simcc_x.max(axis=1), simcc_y.max(axis=1))
    bins = np.stack([simcc_x.argmax(axis=1), simcc_y.argmax(axis=1)], axis=-1).astype(np.float32)
    bins[scores <= 0] = -1
    return bins / np.float32(_SPLIT), scores


def to_picture(
    points: NDArray[np.float32], centre: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Carry points (n, 2) from the network's input back to pixels of the picture the person was cut from."""
    carried: NDArray[np.float64] = points / _POSE_SIZE_XY * scale + centre - scale / 2
    return carried


def to_openpose(
    keypoints: NDArray[np.float64], scores: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Reorder COCO whole-body points (n, 133, 2), scores (n, 133) to OpenPose's 134 with a neck.

    Rows 0-17 body, 18-23 feet, 24-91 face, 92-112 left hand, 113-133 right hand. The neck lies midway between the
    shoulders; its score is 1 if both are visible, else 0.
    """
    neck = keypoints[:, _SHOULDERS].mean(axis=1)
    neck_score = (scores[:, _SHOULDERS] > _VISIBLE).all(axis=1)
    points = np.insert(keypoints, _NECK, neck, axis=1)
    marks = np.insert(scores.astype(np.float64), _NECK, neck_score, axis=1)
    order = np.arange(points.shape[1])
    order[: len(_OPENPOSE_BODY)] = _OPENPOSE_BODY
    return points[:, order], marks[:, order]


def _to_batch(picture: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32)
