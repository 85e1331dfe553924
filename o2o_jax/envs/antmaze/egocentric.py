"""The ant's own view: it looks the same from four sides and in whatever direction it heads, so one gait serves all."""

import numpy as np

# Of v4's 27 numbers, and of its actions; legs 1 to 4 are at 45°, 135°, 225° and 315° of the torso.
ORIENTATION, JOINT_ANGLES = slice(1, 5), slice(5, 13)
VELOCITY, SPIN, JOINT_SPEEDS = slice(13, 15), slice(16, 18), slice(19, 27)
ANKLE_SIGNS = np.array([1.0, -1.0, -1.0, 1.0])  # which way each leg's ankle bends


def view(observation: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns what an ant sees that calls forward the side which faces its goal.

    Args:
      observation: [N, 27] of v4.
      offset: [N, 2] of the goal from the ant, in the world's axes.

    Returns:
      [N, 29]: the same numbers and the offset, in axes that turn with the ant, legs counted from the goal's side; and
      the quarter turns [N] of that side from the ant's own front, for `turn_back`.
    """
    orientation = observation[:, ORIENTATION]
    bearing = np.arctan2(offset[:, 1], offset[:, 0]) - _yaw(orientation)
    turns = np.rint(bearing / (np.pi / 2)).astype(int) % 4
    orientation = _multiply(orientation, _about_z(turns * np.pi / 2))
    yaw = _yaw(orientation)
    seen = observation.copy()
    seen[:, ORIENTATION] = _multiply(_about_z(-yaw), orientation)
    seen[:, VELOCITY] = _rotate(observation[:, VELOCITY], -yaw)
    seen[:, SPIN] = _rotate(observation[:, SPIN], -turns * np.pi / 2)  # which the simulator gives in the torso's axes
    for joints in (JOINT_ANGLES, JOINT_SPEEDS):
        seen[:, joints] = _turn_legs(observation[:, joints], turns)
    return np.concatenate([seen, _rotate(offset, -yaw)], axis=1), turns


def turn_back(action: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Returns v4's actions [N, 8] from those [N, 8] of an ant whose legs are counted after quarter turns [N]."""
    legs = np.roll(action, -2, axis=1)  # v4's actions begin with leg 4
    return np.roll(_turn_legs(legs, -turns), 2, axis=1)


def _turn_legs(joints: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """[N, 8], hip and ankle of each leg: leg j becomes what leg j + turns was."""
    bends = np.stack([np.ones(4), ANKLE_SIGNS], axis=1)
    legs = (np.arange(4) + turns[:, None]) % 4
    straight = joints.reshape(-1, 4, 2) * bends
    return (np.take_along_axis(straight, legs[..., None], axis=1) * bends).reshape(-1, 8)


def _yaw(orientation: np.ndarray) -> np.ndarray:
    w, x, y, z = orientation.T
    return np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))


def _about_z(angle: np.ndarray) -> np.ndarray:
    zero = np.zeros_like(angle, dtype=float)
    return np.stack([np.cos(angle / 2), zero, zero, np.sin(angle / 2)], axis=-1)


def _multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products of quaternions [N, 4], w first and not negative."""
    (aw, ax, ay, az), (bw, bx, by, bz) = a.T, b.T
    product = np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )
    return np.where(product[:, :1] < 0.0, -product, product)


def _rotate(vector: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """[N, 2] by angles [N]."""
    x, y = vector.T
    return np.stack([np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y], axis=-1)
