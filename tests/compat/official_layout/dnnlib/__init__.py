from .util import EasyDict as EasyDict
from .util import construct_class_by_name as construct_class_by_name
