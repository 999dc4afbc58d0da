"""The report: `build.build` writes one HTML page from `inputs.ReportInputs`, `pairs.pairs_page` another of the generated pairs.

`choose.choose_clips` picks the clips that the page plays. The style sheet, script and template ship beside the modules.
"""
