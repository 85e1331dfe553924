"""Installs the library; `requirements.txt` pins the exact environment that it is developed and tested in."""

from pathlib import Path

from setuptools import find_packages, setup

README = Path(__file__).parent / "README.md"

SIMULATOR = ["gymnasium[mujoco]>=1.2", "mujoco>=3.3"]
ROBOTICS = [*SIMULATOR, "gymnasium-robotics>=1.4"]
OGBENCH = [*SIMULATOR, "ogbench>=1.2"]
DATA = ["minari[hdf5]>=0.5.3", "h5py>=3.10", "pillow>=10"]  # minari reads through pillow without declaring it
POOL = ["envpool>=1.2"]
PLOT = ["matplotlib>=3.9", "plotly>=6"]
VIDEO = ["imageio-ffmpeg>=0.5", "pillow>=10.1"]
SLURM = ["submitit>=1.5.3"]
EXPORT = ["flatbuffers>=24.3"]  # jax.export writes and reads through it without declaring it
ONNX = ["jax2onnx>=0.13", "onnxruntime>=1.20"]

setup(
    name="o2o_jax",
    version="0.1.0",
    description="Offline-to-online reinforcement learning in JAX: any offline policy, fine-tuned without a dip",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author="o2o_jax authors",
    license="MIT",
    project_urls={"Paper": "https://arxiv.org/abs/2412.18855"},
    python_requires=">=3.11",
    packages=find_packages(include=["o2o_jax", "o2o_jax.*"]),
    package_data={
        "o2o_jax": ["py.typed"],
        "o2o_jax.studies": ["*.toml", "*/*.toml"],
        "o2o_jax.envs.antmaze": ["policies/*.npz"],
        "o2o_jax.envs.mujoco": ["policies/*.npz", "policies/README.md"],
    },
    entry_points={"console_scripts": ["o2o = o2o_jax.cli.__main__:main"]},
    install_requires=[
        "absl-py>=2.1",
        "chex>=0.1.90",
        "flax>=0.12",
        "jax>=0.10",
        "numpy>=2.0",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.12",
        "tensorstore>=0.1.78",
        "tqdm>=4.66",
    ],
    extras_require={
        "mujoco": SIMULATOR,
        "robotics": ROBOTICS,
        "ogbench": OGBENCH,
        "data": DATA,
        "download": ["minari[hf]>=0.5.3"],
        "envpool": POOL,
        "plot": PLOT,
        "tensorboard": ["tensorboardX>=2.6", "tensorboard>=2.19"],
        "wandb": ["wandb>=0.24"],
        "trackio": ["trackio>=0.20"],
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.6,<10", "mkdocstrings-python>=2.0"],
        "slurm": SLURM,
        "video": VIDEO,
        "export": EXPORT,
        "onnx": ONNX,
        "test": [
            *ROBOTICS,
            *OGBENCH,
            *DATA,
            *PLOT,
            *POOL,
            *VIDEO,
            *EXPORT,
            *ONNX,
            *SLURM,
            "tensorboardX>=2.6",
            "wandb>=0.24",
            "hypothesis>=6.130",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "scipy>=1.13",
            "ruff>=0.17",
            "mypy>=2.0",
        ],
    },
)
