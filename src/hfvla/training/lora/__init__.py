"""LoRA: adapters put in, quantised below, saved, handed over, merged."""
