# The suite on a CPU: docker build -f .docker/cpu.Dockerfile -t memory-suite:cpu . && docker run --rm memory-suite:cpu doctor
# Runs and data stay in what is mounted: mkdir -p runs data first, and give
# --user "$(id -u):$(id -g)" -v "$PWD/runs:/suite/runs" -v "$PWD/data:/data".
FROM python:3.12-slim

# torch without its CUDA libraries, which are most of its size
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" "torch>=2.11" "torchvision>=0.26"

COPY pyproject.toml README.md LICENSE /source/
COPY suite /source/suite
COPY gin /source/gin
COPY leaderboard /source/leaderboard
RUN pip install --no-cache-dir /source && rm -rf /source

RUN useradd --create-home user && mkdir -p /suite/runs /data && chown -R user /suite /data
USER user
WORKDIR /suite
ENV SUITE_DATA_DIR=/data
ENTRYPOINT ["memory-suite"]
CMD ["run", "--gin", "gin/quickstart.gin"]
