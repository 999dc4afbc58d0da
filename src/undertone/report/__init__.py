"""The report: `build.build` writes one HTML page from `inputs.ReportInputs`, `cards.dataset_card` the card of a data set.

`choose.choose_clips` picks the clips that the page plays. The style sheet, script and template ship beside the modules.
"""
