module countersign.local/pause

go 1.26.0
