"""Any of timm's networks, where that library is installed."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from cnnbench.config.validate import as_word
from cnnbench.data.images import DataSpec
from cnnbench.errors import SettingError, UserError, did_you_mean
from cnnbench.models.weights import WeightSource, published_input
from cnnbench.registry import MODELS


def pretrained(settings: Mapping[str, Any]) -> WeightSource:
    """Return timm's weights of an architecture; loading downloads them unless they are cached."""
    timm = _library(settings["architecture"])
    known = timm.models.get_pretrained_cfg(settings["architecture"])
    if known is None or not known.has_weights:
        problem = f"timm has none of '{settings['architecture']}'; init.file takes a file"
        raise SettingError("init.weights=imagenet", problem)
    name = f"timm {known.architecture}.{known.tag}"
    recipe = published_input(known.mean, known.std, known.interpolation)
    words = " ".join(as_word(key, value).replace(" ", "") for key, value in recipe.items())

    def load() -> Mapping[str, Any]:
        try:
            state: Mapping[str, Any] = timm.create_model(settings["architecture"], pretrained=True).state_dict()
        except (OSError, RuntimeError) as error:
            hub = f"https://huggingface.co/{known.hf_hub_id}/resolve/main/model.safetensors"
            where = hub if known.hf_hub_id else known.url
            raise UserError(
                f"init.weights=imagenet: {where} cannot be downloaded ({str(error).splitlines()[0]}); "
                f"get it elsewhere, and give init.file=FILE {words} instead of init.weights"
            ) from error
        return state

    return WeightSource("init.weights=imagenet", name, name, load, {"weights": name}, recipe=recipe)


@MODELS.register("timm", pretrained=pretrained)
def timm(spec: DataSpec, *, architecture: str) -> nn.Module:
    """Build one of timm's networks, without published weights, for the channels and classes of the data.

    Raises SettingError for an unknown architecture, and where timm is not installed.
    """
    library = _library(architecture)
    network: nn.Module = library.create_model(
        architecture, pretrained=False, num_classes=spec.num_outputs, in_chans=spec.channels
    )
    return network


def _library(architecture: str) -> Any:
    try:
        import timm as library
    except ImportError as error:
        problem = "needs a library that is not installed: pip install 'cnnbench[timm]', or pip install timm"
        raise SettingError("model=timm", problem) from error
    if not library.is_model(architecture):
        hint = did_you_mean(architecture, library.list_models()) or "; timm.list_models() names all of them"
        raise SettingError(f"model.architecture={architecture}", f"timm has no such network{hint}")
    return library
