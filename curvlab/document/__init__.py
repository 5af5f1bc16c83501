"""Plain data: values, paths into them, and files that are replaced in one step; nothing here renders."""
