"""Trunks: networks from an image to maps of several resolutions, which many architectures share.

A file each, with a function that makes the trunk: `trunk(dims, inputs, ..., width=1.0) -> Trunk`. A narrow width makes
the tiny presets.
"""

from __future__ import annotations

from medseg.models._backbones._trunk import OutputStride as OutputStride
from medseg.models._backbones._trunk import Stages as Stages
from medseg.models._backbones._trunk import Trunk as Trunk
from medseg.models._backbones._trunk import scaled as scaled
from medseg.models._backbones.alexnet import alexnet as alexnet
from medseg.models._backbones.densenet import DenseNetDepth as DenseNetDepth
from medseg.models._backbones.densenet import densenet as densenet
from medseg.models._backbones.hrnet import HRNetSize as HRNetSize
from medseg.models._backbones.hrnet import hrnet as hrnet
from medseg.models._backbones.mobilenet import efficientnet_b0 as efficientnet_b0
from medseg.models._backbones.mobilenet import mobilenet_v2 as mobilenet_v2
from medseg.models._backbones.mobilenet import mobilenet_v3 as mobilenet_v3
from medseg.models._backbones.resnet import ResNetDepth as ResNetDepth
from medseg.models._backbones.resnet import resnet as resnet
from medseg.models._backbones.vgg import Hidden as Hidden
from medseg.models._backbones.vgg import VGGDepth as VGGDepth
from medseg.models._backbones.vgg import vgg as vgg
from medseg.models._backbones.wide_resnet import wide_resnet38 as wide_resnet38
from medseg.models._backbones.xception import xception as xception
from medseg.models._backbones.xception import xception39 as xception39
