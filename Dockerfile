# electra on NVIDIA GPUs. CUDA comes with torch's wheels; the host brings the driver.
#
#   docker build --tag electra .
#   docker run --gpus all --ipc host --volume "$PWD:/work" electra pretrain electra-small --data store --out run
#
# For Amazon's fast network (EFA) take one of Amazon's own PyTorch images as BASE: this one talks TCP between machines.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

# torch.compile writes C++ and Triton C, which a compiler on the machine turns into code.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/electra
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY electra electra
RUN pip install --no-cache-dir --constraint constraints.txt '.[parquet,zstd,sentences,storage,cleaning]'

WORKDIR /work
ENTRYPOINT ["electra"]
CMD ["--help"]
