def sources():
    return {}
