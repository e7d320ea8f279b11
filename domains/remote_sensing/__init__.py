"""What an analyst of optical satellite and aerial scenes knows: files, pictures, words, and scenes to practise on."""
