"""Architectures: recipes for the networks that are trained on what a memory recalls."""

from suite.architectures import alexnet, convnet, mlp, module, resnet12, strided_convnet, timm_models

__all__ = ["alexnet", "convnet", "mlp", "module", "resnet12", "strided_convnet", "timm_models"]
