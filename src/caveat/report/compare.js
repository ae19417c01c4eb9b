// The page of a comparison: its tables can be sorted, and its terms explain themselves.
listenToSorting();
listenToTips();
markSection();
