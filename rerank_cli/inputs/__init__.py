"""Arguments, files, folders and pipes to documents.

    documents.Inputs  the documents of a run: uses all modules but the last
    files             paths, lists and folders to sources
    source            an open source to documents
    text, records     its content to lines, paragraphs and records
    conversion, grep  other formats: HTML, PDF and DOCX; the output of grep and rg
    trec              the files of BEIR and TREC collections

Nothing here scores documents.
"""
