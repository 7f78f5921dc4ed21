from jaxlm.cli.output import Verb as Verb
