"""The batch APIs of providers, at half the price: jobs are filled, submitted, polled, collected and cleaned up."""
