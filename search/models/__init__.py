"""Our own networks, one short module each; importing this package makes timm know their names.

A network is a timm model: ``forward_features`` gives its last map ``(B, C, h, w)``, ``forward_head(maps,
pre_logits=True)`` pools it to ``(B, head_hidden_size)``. Two more members are read where a network has them: ``trunk``,
the part that pretrained weights fill and that can be frozen; and ``features_and_loss(maps, sex, z)``, for what it
learns by itself beside the age.
"""

import search.models.attention_vgg
import search.models.googlenet
import search.models.memon_cuomo
import search.models.prs_r
import search.models.residual_vgg
import search.models.slim_resnet
import search.models.vgg  # noqa: F401
