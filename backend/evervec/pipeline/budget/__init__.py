"""What sending costs: prices, the count of every request, limits and ceilings that all workers share."""
