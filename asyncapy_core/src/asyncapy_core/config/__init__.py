"""The settings of a server: `settings` describes them, `loading` reads them from all sources."""

from asyncapy_core.config.loading import load_config, merge_options
from asyncapy_core.config.settings import ServerConfig, describe_setting
from asyncapy_core.config.sources import PluginOptions

__all__ = ["PluginOptions", "ServerConfig", "describe_setting", "load_config", "merge_options"]
