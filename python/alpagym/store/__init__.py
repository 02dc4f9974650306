"""A folder of shards: scenarios of any source in safetensors files that load at memory speed."""
