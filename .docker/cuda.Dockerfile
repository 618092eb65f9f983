# The suite on a GPU of NVIDIA's: docker build -f .docker/cuda.Dockerfile -t memory-suite:cuda . && docker run --rm --gpus all
# memory-suite:cuda doctor. The host needs a driver and NVIDIA's container toolkit; torch brings its CUDA libraries itself, and
# gcc is what triton builds kernels with. Runs and data stay in what is mounted: mkdir -p runs data first, and give
# --user "$(id -u):$(id -g)" -v "$PWD/runs:/suite/runs" -v "$PWD/data:/data".
FROM python:3.12-slim

RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir "torch>=2.11" "torchvision>=0.26"

COPY pyproject.toml README.md LICENSE /source/
COPY suite /source/suite
COPY gin /source/gin
COPY leaderboard /source/leaderboard
RUN pip install --no-cache-dir /source && rm -rf /source

RUN useradd --create-home user && mkdir -p /suite/runs /data && chown -R user /suite /data
USER user
WORKDIR /suite
ENV SUITE_DATA_DIR=/data NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENTRYPOINT ["memory-suite"]
CMD ["run", "--gin", "gin/quickstart.gin"]
