# The suite on a CPU: docker build -f .docker/cpu.Dockerfile -t memory-suite:cpu . && docker run --rm memory-suite:cpu doctor
# Runs and data stay in what is mounted: mkdir -p runs data first, and give
# --user "$(id -u):$(id -g)" -v "$PWD/runs:/suite/runs" -v "$PWD/data:/data".
FROM python:3.12-slim

# As it is, torch comes with its CUDA libraries, about 5 GB. pytorch.org/get-started says where its wheels for a CPU alone are:
# --build-arg PIP_EXTRA_INDEX_URL=THAT_PLACE
ARG PIP_EXTRA_INDEX_URL=
RUN pip install --no-cache-dir "torch>=2.11" "torchvision>=0.26"

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
