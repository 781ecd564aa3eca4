# hfvla for training and serving, on NVIDIA GPUs (A100 sm_80, A40 sm_86 and newer) or on a CPU.
#
#   docker build -t hfvla .                                     # CUDA
#   docker build -t hfvla:cpu --build-arg DEVICE=cpu .
#   docker run --gpus all --shm-size 8g -v "$PWD/outputs:/home/hfvla/outputs" -v hfvla-hub:/hub hfvla \
#     launch recipes/ember_vlm/tiny.yaml output_dir=outputs/demo
#   docker run -p 127.0.0.1:8000:8000 -v "$PWD/outputs:/home/hfvla/outputs" hfvla:cpu \
#     serve outputs/demo/final --host 0.0.0.0
#   docker run --gpus all hfvla doctor
#
# torch's wheels carry the CUDA 13 libraries, so the "base" image is enough and the driver must be 580 or newer. DeepSpeed's own
# compiled optimizers (fused Adam, CPU offload) need nvcc: build with --build-arg CUDA_IMAGE=nvidia/cuda:13.0.1-devel-ubuntu24.04.
# To fix the base image to the bit, append the digest that `docker buildx imagetools inspect` prints: TAG@sha256:...
ARG CUDA_IMAGE=nvidia/cuda:13.0.1-base-ubuntu24.04
ARG CPU_IMAGE=ubuntu:24.04
ARG DEVICE=cuda

# The same torch, with or without CUDA's libraries: where pip looks first.
FROM ${CUDA_IMAGE} AS base-cuda
ENV PIP_EXTRA_INDEX_URL="" NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
FROM ${CPU_IMAGE} AS base-cpu
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

# A stage of this file, which has no tag.
# hadolint ignore=DL3006
FROM base-${DEVICE} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 DS_BUILD_OPS=0
# Ubuntu deletes superseded package versions, so a pinned one would break the build within weeks.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-dev python3-venv g++ \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/hfvla
ENV PATH=/opt/hfvla/bin:$PATH
WORKDIR /src
COPY docker/constraints.txt docker/constraints.txt
# The big packages first: this layer stays in the cache while the library's own code changes.
RUN pip install -c docker/constraints.txt torch torchvision transformers datasets accelerate peft timm evaluate
COPY pyproject.toml setup.cfg setup.py README.md LICENSE ./
COPY recipes recipes
COPY src src
RUN pip install -c docker/constraints.txt ".[deepspeed,video,actions,serve,track]"

# hadolint ignore=DL3006
FROM base-${DEVICE}
ENV DEBIAN_FRONTEND=noninteractive
# g++ and Python's headers: Triton and DeepSpeed compile small launchers when they are first used.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-dev g++ ffmpeg libosmesa6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1001 hfvla \
    && install -d -o hfvla /hub /home/hfvla/outputs
COPY --from=build /opt/hfvla /opt/hfvla
COPY docker/entrypoint.sh /usr/local/bin/hfvla-entrypoint
COPY docker/healthcheck.py /usr/local/bin/hfvla-healthcheck
ENV PATH=/opt/hfvla/bin:$PATH \
    HF_HOME=/hub \
    PYTHONUNBUFFERED=1 \
    TORCH_CUDA_ARCH_LIST="8.0;8.6"
USER 1001
WORKDIR /home/hfvla
COPY --chown=hfvla recipes recipes
VOLUME ["/hub"]
EXPOSE 8000
# Asks a server whether it answers; a container that trains is healthy as long as it runs.
HEALTHCHECK --interval=30s --timeout=10s --start-period=300s --retries=3 CMD ["python3", "/usr/local/bin/hfvla-healthcheck"]
ENTRYPOINT ["hfvla-entrypoint"]
CMD ["--help"]
