"""The two pre-training commands: stage1.py (tokenizer) and stage2.py (masked token prediction)."""
