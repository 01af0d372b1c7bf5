"""One file per noun: parse the line, call the cluster, hand the answer to `view`. No decisions, no layout."""
